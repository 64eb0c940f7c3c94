"""The running parts of one gateway process, put together once."""
