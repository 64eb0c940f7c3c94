"""Everything put together: settings, the composition root, the HTTP doors."""
