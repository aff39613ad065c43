# The checks that CI runs, by hand. `make test` is the README's second command without the install.
.PHONY: test slow nightly lint docs assets

test:
	pytest -n auto -m "not slow and not gpu and not nightly"

slow:
	pytest -n auto -m "slow and not gpu and not nightly"

# kills, processes, Slurm, fuzzing, a browser: one at a time, for they measure time and count processes
nightly:
	pytest -rs -m "nightly and not gpu"

lint:
	ruff check .
	ruff format --check .
	pyright
	lint-imports

docs:
	mkdocs build --strict

assets:
	python scripts/make_assets.py
