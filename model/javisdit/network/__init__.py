"""The joint diffusion transformer of JavisDiT++ (MS-MoE, TA-RoPE), its configuration and its clip sizes."""
