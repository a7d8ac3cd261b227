"""METEOR 1.5 for English, exact and without Java, from the data of an installed pycocoevalcap."""

from transfer.captioning.scores.meteor.data import find_folder, why_not
from transfer.captioning.scores.meteor.meteor import Meteor

__all__ = ["Meteor", "find_folder", "why_not"]
