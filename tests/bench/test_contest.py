from bench.contest import Contest, Contestant, hold


def test_the_parts_are_those_of_the_rounds_that_count() -> None:
    laps: list[dict[str, float]] = [{"early": 9.0}]
    moments = iter([{"a": 1.0}, {"a": 2.0, "b": 3.0}, {"a": 4.0}])
    contest = Contest(
        "stage",
        "case",
        {
            "ours": Contestant(lambda: laps.append(next(moments)), laps),
            "peer": Contestant(lambda: None),
        },
        "model",
        pictures=4,
        note="note",
    )
    rounds: list[int] = []
    result = hold(contest, rounds=2, after_round=rounds.append)
    assert (result.stage, result.title, result.pictures, result.note) == (
        *("stage", "model case"),
        *(4, "note"),
    )
    assert result.ours.name == "ours"
    assert result.ours.parts == {"a": (2.0, 4.0), "b": (3.0, 0.0)}
    assert [peer.name for peer in result.peers] == ["peer"]
    assert result.peers[0].parts == {}
    assert rounds == [1, 2]
