//! Hash tags for sharded pub/sub in a Redis Cluster.
//!
//! Owns the partition of a channel and the tag of a partition. Both are part of the wire: producers
//! and edges of different versions must agree, so neither may ever change. 256 tags bound the number
//! of slots, so that many channels share a slot and subscribe in one command.

/// Partitions, and so tags, there are.
pub const PARTITIONS: usize = 256;

/// Slots of a Redis Cluster.
const SLOTS: u16 = 16384;

/// The tag of each partition: the slot of entry `i` is within one of `64 * i + 32`.
///
/// So the tags lie evenly over the slots, and any number of masters with contiguous shares of slots
/// carries shares of tags that differ by one at most.
pub const TAGS: [&str; PARTITIONS] = [
    "021", "4zp", "aio", "0ov", "21g", "csv", "cj9", "gfp", "1d8", "5hq", "556", "90g", "3gn",
    "baw", "7rh", "f0y", "06q", "a0h", "id7", "0k6", "o6o", "69n", "cny", "gb0", "lc0", "5l1",
    "51v", "1y7", "wkn", "7og", "b8p", "3za", "4z4", "02u", "0o2", "5x9", "6yb", "o2k", "2ld",
    "kce", "5h5", "9md", "d3k", "55r", "7kc", "fmz", "ft5", "j5l", "i94", "065", "0kr", "amk",
    "c3z", "25c", "gbt", "6dm", "5lu", "djl", "1ys", "512", "bes", "3cj", "fpu", "72d", "emk",
    "4kr", "465", "83d", "2dm", "cbt", "65c", "g3z", "112", "5ys", "hct", "1lu", "32d", "bpu",
    "7cj", "fes", "8jc", "4o2", "42u", "0z4", "oce", "6ld", "k2k", "2yb", "15r", "qus", "hg4",
    "1h5", "n5l", "bt5", "bmz", "3kc", "4k6", "8ng", "e0h", "46q", "cb0", "gny", "29n", "k6o",
    "5y7", "11v", "1l1", "hc0", "7za", "f8p", "3og", "skn", "4ov", "eio", "0zp", "421", "cfp",
    "gj9", "gsv", "61g", "qu7", "156", "1hq", "5d8", "b0y", "3rh", "faw", "7gn", "20w", "6x6",
    "6ay", "2m0", "e9q", "a58", "iag", "0nf", "ne6", "7j7", "77p", "f1i", "9l0", "5ia", "h7n",
    "18o", "247", "rt6", "6e9", "2ip", "07a", "a1x", "4fo", "min", "fhn", "7nw", "730", "nx9",
    "1ah", "hni", "50f", "957", "6xr", "203", "2mt", "ckm", "aqt", "03e", "edr", "4bk", "7js",
    "flj", "n85", "774", "hjm", "1el", "913", "54b", "c2j", "24s", "2i4", "kf5", "au4", "8z5",
    "0jb", "iec", "7n3", "3bz", "f5m", "73t", "5me", "9h4", "1xc", "h3j", "of5", "6i4", "64s",
    "g2j", "8o3", "4jb", "i4m", "82t", "33t", "b5m", "7bz", "3n3", "l3j", "5xc", "hbd", "1me",
    "gkm", "6mt", "603", "2xr", "0bk", "adr", "43e", "864", "374", "j85", "blj", "3js", "14b",
    "q0k", "5el", "dcu", "6ip", "2e9", "vt6", "647", "iin", "0fo", "820", "47a", "jx9", "330",
    "3nw", "bhn", "q4o", "10f", "9d9", "5ah", "6m0", "2ay", "2x6", "60w", "4nf", "8k7", "86p",
    "a9q", "b1i", "37p", "3j7", "je6", "58o", "9y6", "1ia", "qmh",
];

/// The partition of a channel: FNV-1a-64 of its whole name, modulo [`PARTITIONS`].
#[expect(clippy::cast_possible_truncation, reason = "modulo 256 is the lowest byte")]
pub fn partition(channel: &str) -> u8 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let hash = channel
        .bytes()
        .fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    hash as u8
}

/// The name under which `channel` is published and subscribed with `SPUBLISH` and `SSUBSCRIBE`.
pub fn sharded_name(channel: &str) -> String {
    let tag = TAGS[usize::from(partition(channel))];
    let mut name = String::with_capacity(tag.len() + 2 + channel.len());
    name.push('{');
    name.push_str(tag);
    name.push('}');
    name.push_str(channel);
    name
}

/// The channel behind a sharded name, or `None` if the tag is not that channel's.
pub fn unsharded_name(name: &str) -> Option<&str> {
    let (tag, channel) = name.strip_prefix('{')?.split_once('}')?;
    (TAGS[usize::from(partition(channel))] == tag).then_some(channel)
}

/// The hash slot of a key or sharded channel, by the cluster's rules.
///
/// CRC16 (XMODEM) modulo 16384, of what stands between the first `{` and the first `}` after it if
/// that is not empty, else of the whole name.
pub fn slot(name: &str) -> u16 {
    crc16(hashed_part(name).as_bytes()) % SLOTS
}

fn hashed_part(name: &str) -> &str {
    match name.split_once('{').and_then(|(_, rest)| rest.split_once('}')) {
        Some((tag, _)) if !tag.is_empty() => tag,
        _ => name,
    }
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)])
}

const CRC16: [u16; 256] = crc16_table();

#[expect(clippy::cast_possible_truncation, reason = "the index is below 256")]
const fn crc16_table() -> [u16; 256] {
    const POLYNOMIAL: u16 = 0x1021;
    let mut table = [0; 256];
    let mut index = 0;
    while index < table.len() {
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ POLYNOMIAL };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_known_from_redis() {
        // `CLUSTER KEYSLOT` of Redis 7.0.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot("foo"), 12182);
        assert_eq!(slot("somekey"), 11058);
        assert_eq!(slot("foo{hash_tag}"), slot("hash_tag"));
        assert_eq!(slot("foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot("foo{{bar}}zap"), slot("{bar"));
        assert_eq!(slot("foo{bar}{zap}"), slot("bar"));
        assert_eq!(slot("foo{bar"), crc16(b"foo{bar") % SLOTS);
        assert_eq!(slot(""), 0);
    }

    #[test]
    fn partitions_known_from_the_reference() {
        // FNV-1a-64: "" is cbf29ce484222325, "a" is af63dc4c8601ec8c, "foobar" is 85944171f73967e8.
        assert_eq!(partition(""), 0x25);
        assert_eq!(partition("a"), 0x8c);
        assert_eq!(partition("foobar"), 0xe8);
    }

    #[test]
    fn tags_are_distinct_short_and_in_their_place() {
        let mut sorted = TAGS;
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[0] != pair[1]));
        for (index, tag) in TAGS.iter().enumerate() {
            assert_eq!(tag.len(), 3);
            assert!(tag.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            let distance = usize::from(slot(tag)).abs_diff(64 * index + 32);
            assert!(distance <= 1, "{tag} is {distance} away");
        }
    }

    /// The ranges as `redis-cli --cluster create` cuts them.
    fn tags_per_master(masters: u16) -> Vec<usize> {
        let mut counts = vec![0; usize::from(masters)];
        let mut first = 0.0_f64;
        let share = f64::from(SLOTS) / f64::from(masters);
        let mut ends = Vec::new();
        for master in 0..masters {
            let last = if master + 1 == masters { 16383.0 } else { (first + share - 1.0).round() };
            ends.push(last);
            first += share;
        }
        for tag in TAGS {
            let master = ends.iter().position(|&last| f64::from(slot(tag)) <= last).unwrap();
            counts[master] += 1;
        }
        counts
    }

    #[test]
    fn masters_carry_nearly_equal_shares() {
        for masters in [3, 6, 12, 2, 4, 5, 7, 9] {
            let counts = tags_per_master(masters);
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert_eq!(counts.iter().sum::<usize>(), PARTITIONS);
            assert!(most - least <= 1, "{masters} masters: {counts:?}");
        }
    }

    #[test]
    fn channels_spread_over_masters() {
        // Client, user and room channels as they are in production, over three masters.
        let mut counts = [0_u32; 3];
        for index in 0..30_000_u64 {
            let channel = match index % 3 {
                0 => format!("ws:client:{}", crate::id::ClientId::from_parts(9, 1, 4, index)),
                1 => format!("ws:user:{index}"),
                _ => format!("ws:room:branch:{index}"),
            };
            counts[usize::from(slot(&sharded_name(&channel))) * 3 / usize::from(SLOTS)] += 1;
        }
        for count in counts {
            assert!((9_500..10_500).contains(&count), "{counts:?}");
        }
    }

    #[test]
    fn a_sharded_name_lands_in_the_slot_of_its_tag() {
        for channel in ["ws:broadcast", "ws:room:{other}", "p:ws:user:7", ""] {
            let name = sharded_name(channel);
            assert_eq!(slot(&name), slot(TAGS[usize::from(partition(channel))]));
            assert_eq!(unsharded_name(&name), Some(channel));
        }
        assert_eq!(sharded_name("ws:broadcast"), "{5el}ws:broadcast");
        for other in ["ws:broadcast", "{", "{}", "{zzz}ws:broadcast", "x{000}ws:broadcast"] {
            assert_eq!(unsharded_name(other), None, "{other}");
        }
    }
}
