"""gold = answer: spelling -> quantities and structure -> symbols. Used through common/grading/grader.py."""
