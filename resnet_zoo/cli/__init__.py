"""The command line: a module per subject, put together by ``main``; torch and rich are imported inside functions."""
