"""The deletion service: requests in, orders out, answers and proofs."""
