//! Frames with the fields, the order of keys and the lengths of live ones.

/// A price as differently long as the venue's are.
pub fn price(random: &mut fastrand::Rng) -> String {
    match random.u8(0..4) {
        0 => format!("{}.{:02}", random.u32(20_000..130_000), random.u8(..100)),
        1 => format!("{}.{:04}", random.u32(1..900), random.u32(..10_000)),
        2 => format!("0.{:06}", random.u32(1..1_000_000)),
        _ => format!("{}.{:01}", random.u32(1_000..90_000), random.u8(..10)),
    }
}

fn qty(random: &mut fastrand::Rng) -> String {
    match random.u8(0..3) {
        0 => format!("0.{:03}", random.u32(1..1000)),
        1 => format!("{}", random.u32(1..900_000)),
        _ => format!("{}.{:03}", random.u32(0..90), random.u32(1..1000)),
    }
}

pub fn time(random: &mut fastrand::Rng) -> i64 {
    1_785_000_000_000 + random.i64(0..9_000_000_000)
}

/// An aggregate id as long as the longest that are traded today.
pub fn id(random: &mut fastrand::Rng) -> u64 {
    random.u64(10..3_900_000_000)
}

pub fn combined(name: &str, kind: &str, data: &str) -> String {
    format!(r#"{{"stream":"{}@{kind}","data":{data}}}"#, name.to_lowercase())
}

pub fn trade(random: &mut fastrand::Rng, name: &str, id: u64) -> String {
    let (at, first, qty) = (time(random), random.u64(10..8_000_000_000), qty(random));
    format!(
        r#"{{"e":"aggTrade","E":{},"a":{id},"s":"{name}","p":"{}","q":"{qty}","nq":"{qty}","f":{first},"l":{},"T":{at},"m":{},"st":1}}"#,
        at + random.i64(0..158),
        price(random),
        first + random.u64(0..40),
        random.bool()
    )
}

pub fn spot(random: &mut fastrand::Rng, name: &str, id: u64) -> String {
    let (at, first) = (time(random), random.u64(10..8_000_000_000));
    format!(
        r#"{{"e":"aggTrade","E":{},"s":"{name}","a":{id},"p":"{}.{:08}","q":"{}.{:08}","f":{first},"l":{},"T":{at},"m":{},"M":true}}"#,
        at + 1,
        random.u32(1..99_999),
        random.u32(..100_000_000),
        random.u32(0..99),
        random.u32(1..100_000_000),
        first + random.u64(0..4),
        random.bool()
    )
}

pub fn mark(random: &mut fastrand::Rng, name: &str) -> String {
    let mut number = || format!("{}.{:08}", random.u32(1..99_999), random.u32(..100_000_000));
    let (p, settle, i) = (number(), number(), number());
    format!(
        r#"{{"e":"markPriceUpdate","E":{},"s":"{name}","p":"{p}","ap":"{p}","P":"{settle}","i":"{i}","r":"{}0.{:08}","T":{},"st":1}}"#,
        time(random),
        if random.bool() { "-" } else { "" },
        random.u32(..100_000),
        time(random)
    )
}

/// A push of the candle that opened then; `comma` is what stands between its fields.
pub fn kline(random: &mut fastrand::Rng, name: &str, open_time: i64, comma: &str) -> String {
    let (low, first) = (random.u32(20_000..120_000), random.u64(10..8_000_000_000));
    let fields = [
        format!(r#""t":{open_time}"#),
        format!(r#""T":{}"#, open_time + 59_999),
        format!(r#""s":"{name}""#),
        r#""i":"1m""#.to_owned(),
        format!(r#""f":{first}"#),
        format!(r#""L":{}"#, first + 900),
        format!(r#""o":"{}.{:02}""#, low + 10, random.u8(..100)),
        format!(r#""c":"{}.{:02}""#, low + 20, random.u8(..100)),
        format!(r#""h":"{}.{:02}""#, low + 30, random.u8(..100)),
        format!(r#""l":"{low}.{:02}""#, random.u8(..100)),
        format!(r#""v":"{}.{:03}""#, random.u32(100..900), random.u32(..1000)),
        format!(r#""n":{}"#, random.u32(1..900)),
        format!(r#""x":{}"#, random.bool()),
        format!(r#""q":"{}.{:05}""#, random.u32(1_000_000..90_000_000), random.u32(..100_000)),
        format!(r#""V":"{}.{:03}""#, random.u32(1..99), random.u32(..1000)),
        format!(r#""Q":"{}.{:05}""#, random.u32(1_000..900_000), random.u32(..100_000)),
        r#""B":"0""#.to_owned(),
    ];
    format!(r#"{{"e":"kline","E":{},"s":"{name}","k":{{{}}}}}"#, open_time + random.i64(0..59_999), fields.join(comma))
}

/// So many symbols, named like the venue's.
pub fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{}{n}USDT", ["BTC", "ETH", "SOL", "1000SHIB", "XRP", "DOGE"][n % 6])).collect()
}

/// Combined frames of these symbols in turn as one connection carries them: of ten messages seven are trades, each with
/// its symbol's next id, two are mark prices and one is a candle.
pub fn mix(names: &[String], count: usize) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(11);
    let mut ids: Vec<u64> = names.iter().map(|_| id(&mut random)).collect();
    let opened = 1_785_000_000_000 / 60_000 * 60_000;
    (0..count)
        .map(|n| {
            let symbol = random.usize(..names.len());
            let name = &names[symbol];
            match n % 10 {
                0..7 => {
                    ids[symbol] += 1;
                    combined(name, "aggTrade", &trade(&mut random, name, ids[symbol]))
                }
                7..9 => combined(name, "markPrice@1s", &mark(&mut random, name)),
                _ => {
                    // A new candle every thousand messages a symbol.
                    let minute = (n / (1_000 * names.len())) as i64;
                    let push = kline(&mut random, name, opened + minute * 60_000, ", ");
                    combined(name, "kline_1m", &push.replace("\"x\":true", "\"x\":false"))
                }
            }
        })
        .collect()
}
