//! Whose turn it is to be asked.

use super::*;

/// The names of many clients.
const NAMES: [&str; 26] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t", "u", "v", "w",
    "x", "y", "z",
];

impl Net {
    /// Asks up to `most` of the questions that are due.
    fn ask_some(&mut self, most: usize, now: u64) -> Vec<(u32, Question)> {
        self.memberships.tick(now);
        let asks = (0..most).map_while(|_| self.memberships.ask(now));
        asks.map(|ask| (ask.client, ask.question)).collect()
    }
}

/// A client being asked for all its groups.
fn everything(time: u64, client: u32) -> [(u64, u32, Question); 2] {
    [Question::AllV4, Question::AllV6].map(|question| (time, client, question))
}

fn is_general(question: Question) -> bool {
    !matches!(question, Question::Group(_))
}

/// RFC 3376 §8.6 and §8.7: two at first, a quarter of the interval apart.
#[test]
fn all_who_were_heard_are_asked_at_first_and_in_every_interval() {
    let mut net = Net::new(&text("snooping = true", &["a", "b", "c"], ""));
    let heard = |now: u64| move |client: u32| (client != 1).then_some(now);
    let both = |time: u64| [0, 2].into_iter().flat_map(move |client| everything(time, client));
    let mut asked = Vec::new();
    for now in (0..300_000).step_by(250) {
        net.look(now, heard(now));
        asked.extend(net.run(now));
    }
    assert_eq!(asked, [0, 31_250, 125_000, 250_000].into_iter().flat_map(both).collect::<Vec<_>>());
    let last = 299_750;
    let asked = net.run(last + LIFETIME + 125_000);
    assert!(asked.iter().all(|(time, ..)| *time <= last + LIFETIME), "whoever is silent is asked no more");
    let back = last + 2 * LIFETIME;
    for now in [back, back + 1_000] {
        net.look(now, |client| (client == 2).then_some(now));
    }
    let asked: Vec<_> = net.run(back + 50_000).into_iter().filter(|(time, ..)| *time >= back).collect();
    let expected = [back, back + 31_250].into_iter().flat_map(|time| everything(time, 2));
    assert_eq!(asked, expected.collect::<Vec<_>>(), "until it is heard again");
}

/// RFC 3376 §8.7: as often as the robustness variable says. A question, or its answer, may be lost.
#[test]
fn who_comes_from_another_place_is_asked_as_one_that_starts() {
    let mut net = Net::new(&text("snooping = true", &["a", "b"], ""));
    let at = |heard: u64, port: u16| Some(Whereabouts { heard, endpoint: (mapped([198, 51, 100, 7]), port) });
    net.memberships.look(0, |_| at(0, 4444));
    net.run(50_000);
    net.memberships.look(50_000, |client| at(50_000, 4444 + client as u16));
    assert_eq!(net.run(60_000), everything(50_000, 1));
    net.configure(&text("snooping = true", &["b", "a"], ""), 60_000);
    assert_eq!(net.run(110_000), everything(81_250, 0), "a reload keeps whom there is to ask");
    // Whoever is somewhere else all the time is not asked all the time.
    let mut asked = Vec::new();
    for now in (110_000..120_000).step_by(100) {
        net.memberships.look(now, |client| at(now, if client == 0 { (now / 100) as u16 } else { 4444 }));
        asked.extend(net.run(now).into_iter().filter(|(_, _, question)| *question == Question::AllV4));
    }
    assert!((9..=10).contains(&asked.len()) && asked.iter().all(|(_, client, _)| *client == 0), "{asked:?}");
    assert!(asked.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 1_000), "{asked:?}");
}

#[test]
fn a_network_that_learns_again_asks_whom_it_had_asked_before() {
    let lab = "[[network]]\nname = \"lab\"\nsnooping = true";
    let text = |keys: &str| {
        text(keys, &["a", "b"], lab).replace("name = \"b\"\nnetwork = \"office\"", "name = \"b\"\nnetwork = \"lab\"")
    };
    let mut net = Net::new(&text("snooping = true"));
    net.look(0, |_| Some(0));
    net.run(50_000);
    net.configure(&text("snooping = false"), 50_000);
    net.look(55_000, |_| Some(55_000));
    assert!(net.run(60_000).is_empty());
    net.configure(&text("snooping = true"), 60_000);
    net.look(60_000, |_| Some(60_000));
    assert_eq!(net.run(70_000), everything(60_000, 0), "what a had joined is forgotten, b's is not");
}

/// RFC 3376 §8.4 and RFC 3810 §9.4: the time to answer comes after the last question, whenever that is asked.
#[test]
fn a_member_can_answer_a_question_that_comes_late() {
    let mut net = Net::new(&text("snooping = true", &["a", "b"], ""));
    (0..2).for_each(|client| net.join(client, GROUP, 1_000));
    assert_eq!(net.run(249_999), [0, 1].into_iter().flat_map(|client| everything(125_000, client)).collect::<Vec<_>>());
    // The second round begins, and there is room for its questions just before the time is up.
    net.memberships.tick(250_000);
    let late = 1_000 + LIFETIME - 500;
    assert_eq!(net.ask_some(10, late).len(), 4);
    net.run(late + 9_999);
    assert_eq!(net.members(GROUP), [0, 1]);
    net.join(0, GROUP, late + 9_999);
    net.run(late + 10_000);
    assert_eq!(net.members(GROUP), [0], "who has not answered by then is none");
}

#[test]
fn a_network_without_ipv6_is_not_asked_for_it() {
    let mut net = Net::new(&text("snooping = true", &["a"], "").replace(", \"fd00:9::97/128\"", ""));
    net.look(0, |_| Some(0));
    assert_eq!(net.memberships.ask(0).map(|ask| ask.question), Some(Question::AllV4));
    assert_eq!(net.memberships.ask(0), None);
}

#[test]
fn who_joins_and_leaves_without_end_holds_up_no_round() {
    const GROUPS: u8 = 64;
    let mut net = Net::new(&text("snooping = true", &NAMES, ""));
    net.look(0, |_| Some(0));
    net.run(100_000);
    let mut asked = Vec::new();
    for now in (100_000..128_000).step_by(1_000) {
        net.look(now, |_| Some(now));
        for (client, group) in (0..NAMES.len() as u32).flat_map(|client| (0..GROUPS).map(move |group| (client, group)))
        {
            net.join(client, mapped([239, 7, 7, group]), now);
            net.leave(client, mapped([239, 7, 7, group]), now);
        }
        // More questions are put every second.
        let some = net.ask_some(100, now);
        assert_eq!(some.len(), 100);
        asked.push((now, some));
    }
    let round = asked.iter().filter(|(now, _)| *now >= 125_000).flat_map(|(_, some)| some);
    for question in [Question::AllV4, Question::AllV6] {
        let mut clients: Vec<u32> = round.clone().filter(|ask| ask.1 == question).map(|ask| ask.0).collect();
        clients.sort_unstable();
        assert_eq!(clients, (0..NAMES.len() as u32).collect::<Vec<_>>(), "each once, in a few seconds");
    }
    let during = asked.iter().find(|(now, _)| *now == 125_000).map(|(_, some)| some).expect("the first of the round");
    let others = during.iter().filter(|(_, question)| !is_general(*question)).count();
    assert!(others >= 30, "the round leaves room: {others} of 100 were about groups");
}

#[test]
fn rounds_that_take_longer_than_their_interval_reach_everybody_in_every_network() {
    // 20 clients in one network, six in the other.
    let (many, few) = (0..20u32, 20..26u32);
    let lab = "[[network]]\nname = \"lab\"\nsnooping = true\nquery_interval = 8";
    let mut text = text("snooping = true\nquery_interval = 2", &NAMES, lab);
    for name in &NAMES[20..] {
        let moved = |network: &str| format!("name = \"{name}\"\nnetwork = \"{network}\"");
        text = text.replace(&moved("office"), &moved("lab"));
    }
    let mut net = Net::new(&text);
    let group = |client: u32| mapped([239, 7, 7, client as u8]);
    (0..NAMES.len() as u32).for_each(|client| net.join(client, group(client), 0));
    let mut asked = [const { Vec::new() }; NAMES.len()];
    for now in (0..300_000).step_by(1_000) {
        net.look(now, |_| Some(now));
        // A round of the first takes eight seconds at least.
        for (client, _) in net.ask_some(5, now).iter().filter(|(_, question)| *question == Question::AllV4) {
            asked[*client as usize].push(now);
            // One is gone without a word.
            if *client != 3 {
                net.join(*client, group(*client), now);
            }
        }
        let lost = (0..NAMES.len() as u32).find(|client| *client != 3 && net.memberships.groups_of(*client) != Some(1));
        assert_eq!(lost, None, "who answers whenever it is asked stays: {now}");
    }
    assert_eq!(net.memberships.groups_of(3), Some(0));
    let longest = |clients: std::ops::Range<u32>| {
        let gaps = |client: u32| {
            let times = [&[0][..], &asked[client as usize], &[300_000]].concat();
            times.windows(2).map(|pair| pair[1] - pair[0]).max()
        };
        clients.filter_map(gaps).max().expect("clients")
    };
    // At least half the questions are its own: 40 of them for a round, and as many at first for whoever is heard anew.
    assert!(longest(many.clone()) <= 32_000, "{} ms without a question", longest(many));
    assert!(longest(few.clone()) <= 20_000, "{} ms without a question in the network of few", longest(few));
}

#[test]
fn a_reload_in_the_middle_of_a_round_starts_none_anew() {
    let text = text("snooping = true", &NAMES, "");
    let mut net = Net::new(&text);
    net.look(0, |_| Some(0));
    net.run(124_999);
    let mut clients = Vec::new();
    for now in (125_000..190_000).step_by(1_000) {
        clients.extend(net.ask_some(1, now).into_iter().filter(|ask| ask.1 == Question::AllV6).map(|ask| ask.0));
        net.configure(&text, now);
    }
    clients.sort_unstable();
    assert_eq!(clients, (0..NAMES.len() as u32).collect::<Vec<_>>());
}
