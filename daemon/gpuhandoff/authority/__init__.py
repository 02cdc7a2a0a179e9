"""Who may do what: one table, one gate, default deny."""
