"""The demo: a solver made from scratch, wrong by habit, and the questions that the loop improves it with.

Nothing in the product imports this package; its outcome is a folder for a plain `prosetting run`.

    recipe.py     every number, and the run's settings
    pupil.py      the misconceptions that the solver is warm-started on
    questions.py  warm start, seed pool and held-out questions, and the wall between them
    solver.py     tokenizer, model, warm start
    prepare.py    makes the folder
"""
