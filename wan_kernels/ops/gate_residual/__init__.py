"""gate_residual: x + y * gate. Backends in order of preference."""
