"""The doors of other people's alerting tools: one file a wire format, to and from `Statement`."""
