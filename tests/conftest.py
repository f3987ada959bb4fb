"""Makes the helpers beside this file importable: pytest puts the folder of a conftest on the path."""
