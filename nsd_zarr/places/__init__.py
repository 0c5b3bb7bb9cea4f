"""Where bytes live: local folders, with durable writes. Knows no format. Reading order: files, durable."""
