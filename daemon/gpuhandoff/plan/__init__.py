"""A pure function from (World, Request, Configuration) to a Plan or a refusal."""
