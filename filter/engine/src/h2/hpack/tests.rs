use proptest::prelude::*;

use super::*;

type List = Vec<(Vec<u8>, Vec<u8>)>;

fn read(decoder: &mut Decoder, block: &str) -> Result<List, HpackError> {
    read_bytes(decoder, &hex::decode(block.replace(' ', "")).unwrap())
}

fn read_bytes(decoder: &mut Decoder, block: &[u8]) -> Result<List, HpackError> {
    let mut headers = HeaderBlock::default();
    decoder.decode(block, 4096, &mut headers)?;
    Ok(headers.headers().iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect())
}

fn list(pairs: &[(&str, &str)]) -> List {
    pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// RFC 7541, C.4: three requests with Huffman and the dynamic table.
#[test]
fn requests_of_the_rfc() {
    let mut decoder = Decoder::new();
    let common = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
    let first = read(&mut decoder, "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff").unwrap();
    assert_eq!(first, list(&common));
    let second = read(&mut decoder, "8286 84be 5886 a8eb 1064 9cbf").unwrap();
    assert_eq!(second, [list(&common), list(&[("cache-control", "no-cache")])].concat());
    let third = read(&mut decoder, "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf").unwrap();
    let changed = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ];
    assert_eq!(third, list(&changed));
}

/// RFC 7541, C.6.1 and C.6.2: responses with Huffman and a table of 256 bytes.
#[test]
fn responses_of_the_rfc() {
    let mut decoder = Decoder::new();
    let resize = "3fe101";
    let first = "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
                 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
    let rest = [
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ];
    let got = read(&mut decoder, &format!("{resize}{first}")).unwrap();
    assert_eq!(got, [list(&[(":status", "302")]), list(&rest)].concat());
    let got = read(&mut decoder, "4883 640e ffc1 c0bf").unwrap();
    assert_eq!(got, [list(&[(":status", "307")]), list(&rest)].concat());
}

#[test]
fn nonsense_is_refused() {
    for block in
        ["80", "ff ff ff ff ff 7f", "be", "00", "0001", "000161", "00 7f ff ff ff ff 0f", "40", "82 20", "3f ff ff 7f"]
    {
        assert_eq!(read(&mut Decoder::new(), block), Err(HpackError::Invalid), "{block}");
    }
    // 300 times the same long entry: a bomb.
    let mut bomb = vec![0x40, 1, b'a', 0x7f, 0x81, 0x07];
    bomb.extend([b'v'; 1024]);
    bomb.extend([0xbe; 300]);
    assert_eq!(read_bytes(&mut Decoder::new(), &bomb), Err(HpackError::TooLarge));
    assert_eq!(read_bytes(&mut Decoder::new(), &[0x82; 300]), Err(HpackError::TooLarge));
}

proptest! {
    #[test]
    fn what_is_written_is_read(headers in prop::collection::vec(("[a-z:-]{1,200}", "[ -~]{0,200}"), 0..8)) {
        let mut block = Vec::new();
        let mut writer = HeaderWriter::new(&mut block);
        for (name, value) in &headers {
            writer.push(name.as_bytes(), value.as_bytes());
        }
        let pairs: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        prop_assert_eq!(read_bytes(&mut Decoder::new(), &block), Ok(list(&pairs)));
    }

    #[test]
    fn no_bytes_bring_it_down(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..6)) {
        let mut decoder = Decoder::new();
        for block in blocks {
            let _ = read_bytes(&mut decoder, &block);
        }
    }

    /// What another encoder writes, with its dynamic table over several blocks, we read alike.
    #[test]
    fn another_encoder_is_understood(blocks in blocks()) {
        let (mut encoder, mut decoder) = (fluke_hpack::Encoder::new(), Decoder::new());
        for list in blocks {
            let pairs = list.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
            prop_assert_eq!(read_bytes(&mut decoder, &encoder.encode(pairs)), Ok(list));
        }
    }

    /// What we write, another decoder reads alike.
    #[test]
    fn another_decoder_understands(blocks in blocks()) {
        let mut decoder = fluke_hpack::Decoder::new();
        for list in blocks {
            let mut block = Vec::new();
            for (name, value) in &list {
                HeaderWriter::new(&mut block).push(name, value);
            }
            prop_assert_eq!(decoder.decode(&block).unwrap(), list);
        }
    }

    /// Bytes that both decoders take mean the same to both.
    #[test]
    fn another_decoder_agrees(block in prop::collection::vec(byte(), 0..40)) {
        // It dies of a change of the table's size that is cut off or too long, such as 63, 128, 128, 128, 130: it does not take that.
        let theirs = std::panic::catch_unwind(|| fluke_hpack::Decoder::new().decode(&block));
        if let (Ok(ours), Ok(Ok(theirs))) = (read_bytes(&mut Decoder::new(), &block), theirs) {
            prop_assert_eq!(ours, theirs);
        }
    }
}

/// Blocks of few different headers, so that tables are of use, some of them from the static table.
fn blocks() -> impl Strategy<Value = Vec<List>> {
    let name = prop_oneof![Just(":method".to_owned()), Just("cookie".to_owned()), Just("age".to_owned()), "x-[a-c]"];
    let value = prop_oneof!["[ -~]{0,3}", Just("POST".to_owned()), "[0-9]{200}"];
    let header = (name, value).prop_map(|(name, value)| (name.into_bytes(), value.into_bytes()));
    prop::collection::vec(prop::collection::vec(header, 0..9), 1..12)
}

/// Bytes that are often the start of something: an index, a literal, a short text, Huffman code.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), 0x81..0xc0u8, Just(0x40), Just(0x00), Just(0x10), 0..4u8, Just(0x82), Just(0x1f)]
}
