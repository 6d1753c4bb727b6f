"""SwinIR: the network, the table of variants, their weights and the engine. Knows neither Flask nor Triton."""
