"""The foundation of all packages: command lines, storage, tables, records. Nothing here depends on clips."""
