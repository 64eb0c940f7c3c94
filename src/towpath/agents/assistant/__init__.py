"""The agent `assistant`: a conversation with a language model."""
