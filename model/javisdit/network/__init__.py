"""The joint diffusion transformer of JavisDiT++ (MS-MoE, TA-RoPE) and the sizes it works at."""
