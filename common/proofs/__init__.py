"""What is signed and proved: requests, receipts, the log's heads, certificates."""
