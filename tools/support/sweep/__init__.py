"""Tuning several methods with one budget.

config      the YAML file, and the configuration of a trial
rungs       who goes on, and what that costs: pure
points      what a trial tries: Optuna's samplers
study       what is kept: Optuna's storage
worker      trains what is due, until nothing is
launch      starts workers, passes on signals, shows how far it is
collect     result.json, from storage and folders
result      what follows from it: pure
picture, page   the page and the tables
"""
