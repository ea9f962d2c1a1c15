"""What rules and messages are written in: limits, selectors, patterns, spans, sentences. Pure."""
