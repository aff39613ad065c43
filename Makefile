# The checks that CI runs, by hand. `make test` is the README's second command without the install.
.PHONY: test lint docs assets

test:
	pytest -n auto -m "not slow and not gpu"

lint:
	ruff check .
	ruff format --check .
	pyright
	lint-imports

docs:
	mkdocs build --strict

assets:
	python scripts/make_assets.py
