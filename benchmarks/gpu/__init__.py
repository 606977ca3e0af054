"""The GPU path, part by part: rates of a GPU, and what a CPU can prove of it without one."""
