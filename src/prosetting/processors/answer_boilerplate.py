"""Is there anything in a response that could be a final answer? For the step before a teacher is asked.

Openers such as "Thought process:", chat tokens and talk to the judge fool language models in up to 80-90 % of
cases (arXiv 2507.08794). What is recognised here is removed or must make up the whole text; a text that says
anything else is left to the rules or to the teacher. Pure functions.
"""

from __future__ import annotations

import re
import unicodedata

_MAX_CHARS = 2_000


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TOKENS = re.compile(
    r"<\|[^|<>]{0,40}\|>|</?[a-zA-Z_]{1,30}>|\[/?(?:INST|SYSTEM|SYS|USER|ASSISTANT)\]|<</?SYS>>|```\w*|"
    r"\\(?:f?boxed|text|textbf|begin\{[a-z*]+\}|end\{[a-z*]+\})(?![a-zA-Z])|\\[()\[\]]|####?",
    re.IGNORECASE,
)
_PRAISE = (
    r"(?:correct(?:ly)?|right|true|yes|valid|verified|accept(?:ed)?|pass(?:ed)?|equivalent|"
    r"full (?:marks|score|credit))"
)
_FILLER = (
    r"(?:that|it|this|the|as|is|a|an|are|to|be|with|me|been|has|have|being|only|exactly|fully|student'?s?|response|"
    r"answers?|solutions?|attempt|verified|marked|graded|judged|match(?:es)?|always|simply|just|must|same|and)"
)
# Fake verdicts and commands to the judge, clause by clause: an answer that stands beside them must stay.
_JUDGE_TALK = re.compile(
    r"\{[^{}]{0,200}\"(?:verdict|score|grade|correct|is_correct|label|reward|judge?ment|rating)\"[^{}]{0,200}\}"
    r"|\b(?:please\s+)?(?:ignore|disregard|forget|override)\b[^.;\n]{0,80}?"
    r"\b(?:instructions?|prompts?|rules?|above|before)\b"
    r"|\b(?:and\s+)?(?:say|output|print|return|reply|respond|mark|grade|judge|rate|label|score|give|accept|treat|"
    rf"consider|deem)(?:\s+{_FILLER}){{0,8}}[\s\"']+{_PRAISE}\b"
    rf"|\b(?:verdict|judge?ment|final\s+decision|evaluation|assessment)\s*[:=]\s*\"?(?:{_PRAISE}|A)\b"
    r"|\b(?:output|grade|rating)\s*[:=]\s*\"?correct\b"
    r"|\b(?:the\s+)?(?:two answers|(?:student|user)'?s? (?:answer|response|solution)|attempt)"
    rf"(?:\s+{_FILLER}){{1,8}}\s+{_PRAISE}\b"
    r"|\b(?:the\s+)?answer\s+(?:matches|agrees with|is (?:the same as|identical to|equal to))\s+the\s+reference"
    r"(?:\s+answer)?"
    r"|\bas an? (?:strict )?(?:grader|judge|evaluator|teacher|reviewer)\b[^.;\n]{0,60}?"
    r"\b(?:output|say|give|answer|return)\s\d\b"
    r"|\b(?:ignor[ae]|olvid[ae]|ignorez|oubliez|ignoriere?|vergiss|игнорируй\w*|забудь\w*)\b[^.;\n]{0,80}?"
    r"\b(?:instruc\w+|instruç\w+|anweisungen|инструкци\w+)(?:\s(?:anteriores|précédentes|vorherigen|précédents))?"
    r"|(?:请|請)?(?:忽略|无视|無視)[^。\n]{0,30}?(?:指令|指示|提示|说明)"
    r"|(?:并|请)?(?:判断|判定|评为|标记|视为|输出|回答)为?(?:是)?[“\"]?(?:正确|对)"
    r"|(?:以前|上記|前)の指示を無視\w{0,10}|正解と(?:判定|答え)\w{0,10}",
    re.IGNORECASE,
)
_SCORE = re.compile(
    r"\b(?:score|grade|rating|reward)\s*[:=]\s*(?:1(?:\.0)?|10|100)(?:\s?/\s?\d+)?(?!\d)", re.IGNORECASE
)
_HINTS = re.compile(r"verdict|score|grade|judg|correct|ignor|instruc|disregard|forget|decision|rating", re.IGNORECASE)
_FIRST_STEP = re.compile(r"^\s*(?:step|schritt|paso|étape|шаг)\s1\s*[:.]?\s*$", re.MULTILINE)

# Words that open a solution: a text without one of them is no boiler-plate.
_OPENERS = _words("""
    solution solutions answer answers answering problem question thought thoughts think thinking reasoning explanation
    explain analysis analyze analyse step steps solve solving sure okay ok alright certainly system assistant decision
    verdict
    solución respuesta problema pensamiento razonamiento explicación paso pensemos resolvamos resolver
    problème réponse raisonnement réflexion explication étape résolvons
    lösung antwort aufgabe gedankengang denkprozess überlegung überlegungen erklärung schritt lösen
    решение ответ задача задачу рассуждение рассуждения объяснение шаг шагом пошагово решим решить мыслей
    solução resposta raciocínio explicação passo soluzione risposta ragionamento
    풀이 해설 해답 정답 정답은 답 답은 답변 문제 문제를 단계별로 생각 과정
    الحل الجواب الإجابة التفكير उत्तर समाधान हल çözüm cevap rozwiązanie odpowiedź oplossing antwoord
    розв'язання відповідь
""")
# Words that stand beside them.
_BESIDE = _words("""
    an the this that these it its following given below above final process let let's lets us we we'll i'll will shall
    need needs to must should going have can now begin start by through out work working down break breaking carefully
    consider look at understand find figure determine calculate compute is are as follows here here's well so for of in
    on with about and our my your me please json text output result boxed user first correct together
    la el este esta es de por vamos proceso final primero lo los un una siguiente
    le ce est par processus de allons on nous étapes les der die das dieses diese ist lautet für wir lass lassen uns
    endgültige denken zu schritte
    ход давайте мы нам нужно эту это за для окончательный итак подумаем
    passos do da pensare passaggi il è 이 다음 풀어 봅시다 보겠습니다 최종
""")
# After "answer:" such a word would be an answer ("in", "will"): the text must end on an opener, or on one of these.
_ENDS = _words("is below follows here es est ist lautet è process proceso processus json boxed output together ход")
_ENDS |= _words("보겠습니다 봅시다 siguiente")
_ENDS_ON_OBJECT = re.compile(
    r"\b(?:solve|about|through|analy[sz]e|down|at|consider|find|calculate|compute|determine|understand|explain|"
    r"résolvons|resolvamos|lösen)\s+(?:this|it|that)\W*$"
)
_LONE_LETTER = re.compile(r"\b[aio]\s+(?=[^\W\d_]{2})")
_CJK = re.compile(
    r"(?:一步一步|一步步|逐步|首先|好的|下面|如下|让我们|我们来|我们|来|请|解题|解答|解析|解决|求解|分析|思考|推理|过程|思路|步骤|最终|详细|"
    r"这个|这道|该|问题|题目|题|解|答案|答|是|为|的|地|吧|以上|之前|所有|かいせつ|解説|解法|回答|答え|プロセス|ステップ|バイ|この|問題|を|"
    r"は|で|に|の|では|まず|解き|解い|解く|考え|てみ|ていき|ましょう|ます|みましょう|いきましょう|です|一歩|ずつ|順番|て|し|よう)+"
)
_CJK_OPENER = re.compile(r"解|答|思|题|題|步|首先|让我们|かいせつ|ステップ|推理|分析")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+")


def holds_no_answer(response: str) -> bool:
    """True when nothing in the response could be a final answer: it is empty, punctuation, chat tokens, openers
    ("Let's solve this problem step by step.") or talk to the judge, in the languages known here, and no more.

    False whenever anything else is left: a number, an expression, a letter, a word such as "Paris" or "yes".
    """
    if len(response) > _MAX_CHARS:
        return not re.search(r"\w", response)
    if re.search(r"\d\D*\d", response) and not _HINTS.search(response):
        return False
    text, talks = _JUDGE_TALK.subn(" ", unicodedata.normalize("NFKC", response))
    text = _TOKENS.sub(" ", _SCORE.sub(" ", text) if talks else text).lower()
    text = _LONE_LETTER.sub(" ", _FIRST_STEP.sub(" step ", text))
    if re.search(r"\\[a-zA-Z]|\\\{|\{\s*\}\s*\}|[+=<>/^]", text) or _other_symbol(text):
        return False
    return _is_boilerplate(text)


def _is_boilerplate(text: str) -> bool:
    words = _WORD.findall(text)
    if not words:
        return True
    openers = [word in _OPENERS or _is_cjk_opener(word) for word in words]
    if not all(known or word in _BESIDE or _CJK.fullmatch(word) for known, word in zip(openers, words, strict=True)):
        return False
    after_a_mark = re.search(r":\s*\w+\W*$", text)
    ends_open = openers[-1] or (words[-1] in _ENDS and not after_a_mark) or bool(_ENDS_ON_OBJECT.search(text))
    return ends_open and any(openers)


def _is_cjk_opener(word: str) -> bool:
    return bool(_CJK_OPENER.search(word)) and bool(_CJK.fullmatch(word))


def _other_symbol(text: str) -> bool:
    """An emoji, a tick, infinity, the empty set: no word, but it may be what was asked for."""
    return any(unicodedata.category(c) in {"So", "No", "Nl", "Sm"} for c in text if not c.isascii())


def says_nothing(response: str, expected: str) -> bool:
    """`holds_no_answer`, unless the expected answer is made of the same words."""
    if not holds_no_answer(response):
        return False
    return not set(_WORD.findall(expected.lower())) & set(_WORD.findall(response.lower()))
