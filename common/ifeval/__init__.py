"""IFEval (arXiv 2311.07911): does an output follow the instructions that its prompt holds?

protocols        what a model is asked, and how long it may answer
grading          an output -> which instructions it follows -> four shares, and their floor
checkers         the 25 kinds of instruction, a table
language_tools   sentences, capital words, languages, by the libraries of requirements-ifeval.txt
"""
