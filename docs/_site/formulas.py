"""Equations of docstrings as MathML: their text is rewritten as LaTeX, latex2mathml does the rest.

    u_t = r_t + gamma (1 - done_t) u_{t+1}   ->   u_{t}=r_{t}+\\gamma(1-\\mathrm{done}_{t})u_{t+1}

What reads as prose, or is laid out in columns, is None: it stays as it is.
"""

import re

from latex2mathml.converter import convert

GREEK = {"alpha", "beta", "gamma", "delta", "lambda", "mu", "sigma", "pi", "tau", "theta"} | {"eps"}
BIG = {"sum": r"\sum ", "min": r"\min ", "max": r"\max ", "argmax": r"\operatorname{argmax} "}
CALLS = {"log", "exp", "sqrt", "tanh"}
FUNCTIONS = {"clamp", "clip", "softplus", "sigmoid", "mean", "std", "Var", "KL", "EV", "sg", "grad", "softmax"}
SIGNS = {
    "<=": r"\le ", ">=": r"\ge ", "<-": r"\leftarrow ", "->": r"\to ", "||": r"\parallel ", "...": r"\ldots ",
    "~": r"\sim ", "|": "|", "{": r"\{", "}": r"\}",
}  # fmt: skip
TOKEN = re.compile(r"\s+|[A-Za-z]+|\d*\.?\d+|<=|>=|<-|->|\|\||\.\.\.|.")
CLOSING = {"(": ")", "[": "]", "{": "}"}
UNDERSCORE = r"\_"
LINKING = {"where", "otherwise", "beyond", "if", "or", "and"}  # words that an equation may hold
PROSE = re.compile(r"\b(all|at|clamped|counted|from|is|of|over|progress|so|that|the|to|up)\b")  # a sentence


def mathml(text: str) -> str | None:
    """A block of equations, one a line; None where it is no such block."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    rows = [latex(line) for line in lines]
    if not lines or None in rows:
        return None
    return "\n".join(f'<p class="formula">{convert(row, display="block")}</p>' for row in rows if row)


def latex(line: str) -> str | None:
    """One equation in LaTeX."""
    tokens = TOKEN.findall(re.sub(r" +(?==)", " ", line))
    if PROSE.search(line) or not re.search(r"[=<>(^/~]", line):
        return None
    return _Row(tokens).read()


def _is_word(token: str) -> bool:
    return token.isalpha() and len(token) > 1 and token not in GREEK | {*BIG} | CALLS | LINKING


def _symbol(first: str, name: str) -> str:
    if first in GREEK:
        return rf"\{'varepsilon' if first == 'eps' else first} "
    if first in CALLS - {"sqrt"}:
        return rf"\{first} "
    return name if len(name) == 1 or not first[0].isalpha() else rf"\mathrm{{{name}}}"


class _Row:
    """Tokens read from left to right."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at = tokens, 0

    def read(self, until: str = "") -> str:
        parts: list[str] = []  # operands and signs; "": a blank between two
        while self.at < len(self.tokens) and self.tokens[self.at] != until:
            token = self.tokens[self.at]
            if token.isspace():
                self.at += 1
                word = _is_word("".join(self.tokens[self.at : self.at + 1]))
                is_apart = word and re.search(r"[\w}] *$", "".join(parts[-1:]))
                parts.append(r"\quad " if len(token) > 1 else r"\," if is_apart else "")
            elif token == "/" and self._is_fraction(parts):
                self.at += 2
                over = parts.pop() or parts.pop()
                parts.append(rf"\frac{{{over}}}{{{self.operand()}}}")
            else:
                parts.append(self.operand())
        self.at += 1
        return "".join(parts)

    def _is_fraction(self, parts: list[str]) -> bool:
        """Blanks around the stroke, and one operand on each side that touches no other."""
        alone = len(parts) > 1 and not parts[-1] and (len(parts) < 3 or not parts[-3].strip().isalnum())
        if not alone or self.tokens[self.at + 1 : self.at + 2] != [" "]:
            return False
        ahead = _Row(self.tokens[self.at + 2 :])
        ahead.operand()
        following = ahead.tokens[ahead.at : ahead.at + 1]
        return not following or not (following[0].isalnum() or following[0] in "([")

    def operand(self) -> str:
        """A name or number or bracket, with what is written below, above and behind it."""
        token = self.tokens[self.at]
        self.at += 1
        if token in CLOSING:
            return self._scripts(self._bracket(token))
        if not token[0].isalnum() and token[0] != ".":
            return SIGNS.get(token, token) + (" " if token in ",;" else "")
        if not token[0].isalpha():
            return self._scripts(token)
        text = self._name(token)
        if self._peek() == "~" and self.tokens[self.at + 1 : self.at + 2] in ([" "], [")"], []):
            self.at += 1
            text = rf"\tilde{{{text}}}"
        text = self._scripts(text)
        if self._peek() == "(" and token == "sqrt":
            self.at += 1
            return rf"\sqrt{{{self.read(')')}}}"
        if self._peek() == "(":
            self.at += 1
            text += self._bracket("(")
            return self._scripts(text)
        follows = self.tokens[self.at : self.at + 2]
        if token in CALLS | FUNCTIONS and len(follows) == 2 and follows[0] == " " and follows[1][0].isalnum():
            self.at += 1
            text += rf"\,{self.operand()}"  # log std, mean A
        return text

    def _bracket(self, opening: str) -> str:
        closing = CLOSING[opening]
        left, right = (r"\{", r"\}") if opening == "{" else (opening, closing)
        return rf"\left{left}{self.read(closing)}\right{right}"

    def _name(self, token: str) -> str:
        parts = [token]
        while len(parts[0]) > 1 and parts[0] not in GREEK | {*BIG} | CALLS | FUNCTIONS and self._peek() == "_":
            following = self.tokens[self.at + 1 : self.at + 2]
            if not following or not following[0].isalpha() or len(following[0]) == 1:
                break
            parts.append(following[0])  # clip_low is one name, r_t is not
            self.at += 2
        if token in BIG:
            return BIG[token]
        if token in LINKING:
            return rf"\text{{ {token} }}"
        return _symbol(token, UNDERSCORE.join(parts))

    def _scripts(self, text: str) -> str:
        """_t, _{t+1}, ^2, and primes."""
        while (sign := self._peek()) in ("_", "^", "'"):
            self.at += 1
            if sign == "'":
                text += "'"
            elif self._peek() == "{":
                self.at += 1
                text += rf"{sign}{{{self.read('}')}}}"
            else:
                names = [self.tokens[self.at]]
                self.at += 1
                while self._peek() == "_" and len(names[0]) > 1:
                    names.append(self.tokens[self.at + 1])
                    self.at += 2
                text += rf"{sign}{{{_symbol(names[0], UNDERSCORE.join(names))}}}"
        return text

    def _peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""
