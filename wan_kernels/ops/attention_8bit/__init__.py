"""attention_8bit: attention on 8-bit codes. Backends in order of preference."""
