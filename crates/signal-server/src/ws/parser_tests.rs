//! The parser by table, by property and against every way of cutting its input.

use proptest::prelude::*;

use super::*;

const MAX: usize = 1024;

/// A client's frame: masked, with the header bits as given.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..=0xFFFF => {
            out.push(0xFE);
            out.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            out.push(0xFF);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
    out
}

/// Events as owned text, fed in pieces of `piece` bytes.
fn run(input: &[u8], piece: usize) -> Result<Vec<String>, (Vec<String>, Violation)> {
    let mut parser = Parser::default();
    let mut events = Vec::new();
    for piece in input.chunks(piece.max(1)) {
        let mut piece = piece.to_vec();
        let outcome = parser.advance(&mut piece, MAX, |event| {
            events.push(match event {
                Event::Text(text) => format!("text {text}"),
                Event::Binary(bytes) => format!("binary {bytes:?}"),
                Event::Ping(bytes) => format!("ping {bytes:?}"),
                Event::Pong => "pong".to_owned(),
                Event::Close(code) => format!("close {code:?}"),
            });
            ControlFlow::Continue(())
        });
        if let Err(violation) = outcome {
            return Err((events, violation));
        }
    }
    assert!(parser.kept_bytes() <= input.len());
    Ok(events)
}

/// Checks one outcome for every way of cutting the input into equal pieces.
fn check(input: &[u8], expected: &Result<Vec<&str>, Violation>) {
    for piece in [1, 2, 3, 5, 7, 64, input.len()] {
        let outcome = run(input, piece).map_err(|(_, violation)| violation);
        let outcome = outcome
            .as_ref()
            .map(|events| events.iter().map(String::as_str).collect::<Vec<_>>())
            .map_err(|violation| *violation);
        assert_eq!(outcome, expected.clone(), "in pieces of {piece}");
    }
}

#[test]
fn well_formed_input() {
    let long = "x".repeat(300);
    check(&frame(0x81, b"hello"), &Ok(vec!["text hello"]));
    check(&frame(0x81, long.as_bytes()), &Ok(vec![&format!("text {long}")]));
    check(&frame(0x82, &[0xFF, 0]), &Ok(vec!["binary [255, 0]"]));
    check(&frame(0x89, b"ab"), &Ok(vec!["ping [97, 98]"]));
    check(&frame(0x8A, b""), &Ok(vec!["pong"]));
    check(&frame(0x88, b""), &Ok(vec!["close None"]));
    check(&frame(0x88, &[0x03, 0xE8, b'b']), &Ok(vec!["close Some(1000)"]));
    let several = [frame(0x81, b"a"), frame(0x81, b""), frame(0x81, b"b")].concat();
    check(&several, &Ok(vec!["text a", "text ", "text b"]));
}

#[test]
fn fragments_are_joined_and_control_frames_may_come_between() {
    let euro = "€".as_bytes();
    let input = [
        frame(0x01, &euro[..1]),
        frame(0x89, b"!"),
        frame(0x00, &euro[1..2]),
        frame(0x80, &euro[2..]),
        frame(0x82, b"z"),
    ]
    .concat();
    check(&input, &Ok(vec!["ping [33]", "text €", "binary [122]"]));
}

#[test]
fn violations() {
    let mut unmasked = frame(0x81, b"hi");
    unmasked[1] &= 0x7F;
    let long_form = |length: u64| {
        let mut out = vec![0x82, 0xFF];
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out
    };
    for (input, violation) in [
        (frame(0xC1, b"x"), Violation::ReservedBits),
        (frame(0x83, b"x"), Violation::ReservedOpcode),
        (frame(0x8B, b"x"), Violation::ReservedOpcode),
        (unmasked, Violation::Unmasked),
        (vec![0x82, 0xFE, 0, 5, 0, 0, 0, 0], Violation::Length),
        (long_form(70), Violation::Length),
        (long_form(1 << 63), Violation::Length),
        (long_form(1 << 40), Violation::TooBig),
        (frame(0x09, b"x"), Violation::Control),
        (frame(0x89, &[0; 126]), Violation::Control),
        (frame(0x80, b"x"), Violation::Fragment),
        ([frame(0x01, b"a"), frame(0x81, b"b")].concat(), Violation::Fragment),
        (frame(0x88, &[3]), Violation::CloseCode),
        (frame(0x88, &1005_u16.to_be_bytes()), Violation::CloseCode),
        (frame(0x88, &999_u16.to_be_bytes()), Violation::CloseCode),
        (frame(0x88, &2000_u16.to_be_bytes()), Violation::CloseCode),
        (frame(0x88, &5000_u16.to_be_bytes()), Violation::CloseCode),
        (frame(0x88, &[0x03, 0xE8, 0xFF]), Violation::InvalidUtf8),
        (frame(0x81, &[0xC3, 0x28]), Violation::InvalidUtf8),
        (frame(0x01, &[0xC3, 0x28]), Violation::InvalidUtf8),
        ([frame(0x01, &[0xC3]), frame(0x80, b"")].concat(), Violation::InvalidUtf8),
        (frame(0x81, &[b'x'; MAX + 1]), Violation::TooBig),
        ([frame(0x01, &[b'x'; MAX]), frame(0x00, b"x")].concat(), Violation::TooBig),
    ] {
        check(&input, &Err(violation));
    }
}

#[test]
fn a_claimed_length_reserves_nothing() {
    let mut parser = Parser::default();
    let mut header = frame(0x82, &[0; MAX])[..8].to_vec();
    let outcome = parser.advance(&mut header, MAX, |_| ControlFlow::Continue(()));
    assert_eq!(outcome, Ok(()));
    assert_eq!(parser.kept_bytes(), 8);
    let kept = parser.partial.as_ref().map(|partial| partial.frame.capacity());
    assert!(kept.is_some_and(|capacity| capacity < 64), "reserved {kept:?}");
}

#[test]
fn nothing_is_kept_between_messages() {
    let mut parser = Parser::default();
    let input = [frame(0x01, b"a"), frame(0x80, b"b"), frame(0x81, b"c")].concat();
    for byte in input {
        assert_eq!(parser.advance(&mut [byte], MAX, |_| ControlFlow::Continue(())), Ok(()));
    }
    assert!(parser.is_idle());
}

#[test]
fn the_rest_is_left_alone_after_a_break() {
    let mut input = [frame(0x88, b""), frame(0x81, b"late")].concat();
    let mut count = 0;
    let outcome = Parser::default().advance(&mut input, MAX, |_| {
        count += 1;
        ControlFlow::Break(())
    });
    assert_eq!((outcome, count), (Ok(()), 1));
}

proptest! {
    #[test]
    fn arbitrary_bytes_give_the_same_however_they_are_cut(
        input in proptest::collection::vec(any::<u8>(), 0..200), piece in 1_usize..20,
    ) {
        prop_assert_eq!(run(&input, piece), run(&input, input.len()));
    }

    #[test]
    fn messages_come_back_whole(
        messages in proptest::collection::vec((".{0,200}", 1_usize..50), 0..8), piece in 1_usize..64,
    ) {
        let mut input = Vec::new();
        let mut expected = Vec::new();
        for (text, fragment) in &messages {
            expected.push(format!("text {text}"));
            let pieces: Vec<&[u8]> = if text.is_empty() { vec![b""] } else { text.as_bytes().chunks(*fragment).collect() };
            for (index, payload) in pieces.iter().enumerate() {
                let opcode = u8::from(index == 0);
                let fin = if index + 1 == pieces.len() { 0x80 } else { 0x00 };
                input.extend_from_slice(&frame(fin | opcode, payload));
            }
        }
        prop_assert_eq!(run(&input, piece), Ok(expected));
    }
}
