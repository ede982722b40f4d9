"""What outlives a session: turns of conversations, kept in a store and recalled by what they say."""
