"""Rounds of training: strategies that forget before they average, and their record."""
