"""Each command's options, from flags, environment, `.env` and TOML; one file a command."""
