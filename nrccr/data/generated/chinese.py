"""Chinese captions of generated videos."""

from __future__ import annotations

import random
from collections.abc import Sequence

from nrccr.data.generated.words import Grammar, Plan, Word, join, number_of, phrase, pick

_DIGITS = ("零", "一", "二", "三", "四", "五", "六", "七", "八", "九")
_OPPOSITES = str.maketrans("左右上下顶底升降", "右左下上底顶降升")  # character by character
_SIZES = {
    "small": ("小小的/small", "很小的/small", "小/small"),
    "large": ("大大的/large", "很大的/large", "大/large"),
}
_PLACES = {
    "left": ("在 左边/left", "在 画面 左侧/left", "靠 左边/left"),
    "right": ("在 右边/right", "在 画面 右侧/right", "靠 右边/right"),
    "up": ("在 上方/up", "在 画面 顶部/up", "在 上面/up"),
    "down": ("在 下方/down", "在 画面 底部/down", "在 下面/down"),
    "middle": ("在 中间/middle", "在 画面 中央/middle"),
}
_ACTIONS = {
    "still": ("静止/still 不动", "停着/still 不动", "一动不动/still"),
    "left": ("向左/left 移动/move", "往左/left 滑去/move", "慢慢 移到/move 左边/left"),
    "right": ("向右/right 移动/move", "往右/right 滑去/move", "慢慢 移到/move 右边/right"),
    "up": ("向上/up 移动/move", "往上/up 飘/move", "慢慢 上升/up"),
    "down": ("向下/down 移动/move", "往下/down 落/move", "慢慢 下降/down"),
    "grow": ("慢慢 变大/grow", "越来越大/grow", "渐渐 放大/grow"),
    "shrink": ("慢慢 变小/shrink", "越来越小/shrink", "渐渐 缩小/shrink"),
    "appear": ("出现/appear 了", "冒/appear 出来", "突然 显现/appear"),
    "vanish": ("消失/vanish 了", "不见/vanish 了", "渐渐 消失/vanish"),
}
_GROUNDS = {
    "dark": ("黑色/dark 背景/ground 上", "在 黑色/dark 的 背景/ground 上"),
    "bright": ("白色/bright 背景/ground 上", "在 白色/bright 的 背景/ground 上"),
    "darkens": ("背景/ground 变成/turn 黑色/dark", "画面/ground 变/turn 暗/dark 了"),
    "brightens": ("背景/ground 变成/turn 白色/bright", "画面/ground 变/turn 亮/bright 了"),
}


def _chinese(plan: Plan, choose: random.Random) -> list[Word]:
    clauses = [_chinese_clause(plan, number, choose) for number in range(len(plan.actors))]
    if len(clauses) == 1:
        words = clauses[0]
    elif plan.sequence:
        form = choose.choice(("先/then 是 {0} , 然后/then {1}", "{0} , 接着/then {1}", "{0} 之后/then , {1}"))
        words = join(form, *clauses)
    else:
        form = choose.choice(("{0} , 同时/while {1}", "{0} 的 时候/while , {1}", "{0} , {1}"))
        words = join(form, *(clauses if choose.random() < 0.5 else clauses[::-1]))
    ground = pick(_GROUNDS, plan.ground, "all", choose)
    if not ground:
        return words
    return [*words, Word(","), *ground] if plan.ground in ("darkens", "brightens") else [*ground, Word(","), *words]


def _chinese_clause(plan: Plan, number: int, choose: random.Random) -> list[Word]:
    actor = plan.actors[number]
    size = pick(_SIZES, actor.size if plan.sized[number] else "", number, choose)
    noun = choose.choice(("数字/figure {}", "数字/figure {}", "手写 的 {}", "{}"))
    subject = [Word("一个"), *size, *phrase(noun.format(number_of(actor, _DIGITS, choose)), number)]
    action = pick(_ACTIONS, actor.action, number, choose)
    place = pick(_PLACES, actor.place if plan.placed[number] else "", number, choose)
    if place and choose.random() < 0.4:
        return [*place[1:], Word("有"), *subject, *action]  # 左边有一个...
    return [*subject, *place, *action]


def _spell(words: Sequence[Word]) -> str:
    return "".join(word.text for word in words).replace(",", "，") + "。"


def _opposite(text: str) -> str | None:
    turned = text.translate(_OPPOSITES)
    return None if turned == text else turned


CHINESE = Grammar(_DIGITS, _chinese, _spell, _opposite)
