"""Easy to hard: a solver that is warm-started on short ledgers alone, and what takes it to longer ones.

Made like the demo, and as little known to the product. `experiments/easy_to_hard.py` runs it, docs/easy_to_hard.md
tells what came of it.

    recipe.py     every number, the run's settings, and the arms of the experiment
    questions.py  stories for the warm start, the first pool and the held-out file, and the wall between them
    solver.py     the model, and a warm start that ends when it has converged
    reward.py     REWARD_FUNCTION: a whole ledger is right, a lucky number is not
    prepare.py    makes the folder
"""
