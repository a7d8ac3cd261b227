"""Upper room: tasks that start from a backbone. Of the lower room it sees only the doors."""
