"""METEOR 1.5 for English, exact and without Java, from the data of an installed pycocoevalcap."""

from transfer.captioning.scores.meteor.data import HOW_TO_GET_IT, find_folder, why_not
from transfer.captioning.scores.meteor.meteor import Meteor, MeteorReferences

__all__ = ["HOW_TO_GET_IT", "Meteor", "MeteorReferences", "find_folder", "why_not"]
