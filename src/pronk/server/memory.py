"""Memory that the C library keeps in store -> back to the system."""

import ctypes

M_MMAP_THRESHOLD = -3  # as in glibc's malloc.h
LARGE_BYTES = 2**21  # decoding a usual photo takes less; large ones are converted in bands of 4 MB


def return_large_blocks() -> bool:
    """Let the C library take each large block from the system by itself, and give it back once it is free.

    glibc begins so, but when one was freed it keeps blocks of that size in store, for each thread apart: after two
    threads have decoded a picture of 49 megapixels each, one after the other, 400 MB would stay with the server.

    Returns:
        Whether this machine's C library knows the setting; only glibc needs it.

    Example:
        >>> return_large_blocks() in (True, False)
        True
    """
    return _call("mallopt", M_MMAP_THRESHOLD, LARGE_BYTES)


def return_free_memory() -> bool:
    """Give back what is free now; opening a model leaves some 20 MB.

    Returns:
        Whether there was any.

    Example:
        >>> return_free_memory() in (True, False)
        True
    """
    return _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> bool:
    try:
        return bool(getattr(ctypes.CDLL(None), name)(*arguments))
    except (AttributeError, OSError, TypeError):  # no glibc, no such function, or Windows, which takes no None
        return False
