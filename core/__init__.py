"""What every package stands on: command lines, storage, tables, records. Nothing here knows of clips' content."""
