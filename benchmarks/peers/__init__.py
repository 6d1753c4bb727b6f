"""Other upscalers next to ours: the same inputs, the same measures, from their own packages."""
