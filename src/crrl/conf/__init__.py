"""Recipes and the schema they fill: `load.load_recipe(name, overrides) -> Config`."""
