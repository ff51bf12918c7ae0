"""Controllers with neural Lyapunov functions, proved stable (not written yet)."""
