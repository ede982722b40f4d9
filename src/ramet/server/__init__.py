"""HTTP: OpenAI Chat Completions and Responses, Anthropic Messages, metrics, and a view of the tree."""
