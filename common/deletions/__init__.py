"""The words of a deletion: requests, orders, answers, states, references."""
