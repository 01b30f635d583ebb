"""What an LLM client knows, without I/O: requests, endpoints, results, retries and recovery."""
