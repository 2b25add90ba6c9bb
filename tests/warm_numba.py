"What numba looks up before it takes the first compiled function from its cache, which takes it a third of a second."

from numba.core.registry import cpu_target

cpu_target.typing_context.refresh()
cpu_target.target_context.refresh()
