//! One case: a sentence of an RFC, and the exchange that shows whether it holds.
//!
//! Fields are written as header lines joined by `|`. `@-60` in them is the HTTP date of so many seconds before
//! now (`@+60` after), and `{base}` where the case lives. Time is in the fields (`Age`, `Date`), nobody sleeps.

/// A sentence, and the requests that show it.
pub(super) struct Case {
    /// The section, as `9111 4.2.1`, or the number of another RFC before it.
    pub(super) section: &'static str,
    /// What it asks for.
    pub(super) claim: String,
    /// The route of the gateway that it is played on.
    pub(super) route: &'static str,
    pub(super) steps: Vec<Step>,
}

/// One request, what the backend answers if it is asked, and what must come of it.
pub(super) struct Step {
    pub(super) method: &'static str,
    /// Behind the path of the case.
    pub(super) path: &'static str,
    pub(super) sends: String,
    pub(super) reply: Reply,
    pub(super) expects: Vec<Expect>,
}

/// What the backend answers.
#[derive(Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) fields: String,
    pub(super) body: Body,
    /// An interim response before it.
    pub(super) interim: &'static str,
}

#[derive(Clone)]
pub(super) enum Body {
    /// With its length.
    Whole(String),
    /// In chunks, with these trailers.
    Chunked(String, &'static str),
    /// Less than was announced, then the connection ends.
    Cut,
    /// No answer: the connection is closed.
    Nothing,
}

/// What must come of a step.
pub(super) enum Expect {
    /// Answered from the store.
    Hit,
    /// The backend was asked.
    Asked,
    /// An old copy while a newer one is fetched.
    Behind,
    Status(u16),
    /// The client gets this line (name and value), or any of that name if there is no colon.
    Has(String),
    Lacks(&'static str),
    Body(String),
    /// The backend was sent this line, or one of that name.
    Sent(String),
    NotSent(&'static str),
    /// The client's `Age` is from the first to the second.
    Age(u64, u64),
    /// The client saw this interim status.
    Interim(u16),
}

/// Begins a case.
pub(super) fn case(section: &'static str, claim: impl Into<String>) -> Case {
    Case { section, claim: claim.into(), route: "plain", steps: Vec::new() }
}

impl Case {
    /// Plays it on another route than the plain one.
    pub(super) fn on(mut self, route: &'static str) -> Self {
        self.route = route;
        self
    }

    pub(super) fn get(self) -> Self {
        self.asks("GET")
    }

    pub(super) fn head(self) -> Self {
        self.asks("HEAD")
    }

    /// Begins the next step. If the backend is asked it answers 200 without a word about caching.
    pub(super) fn asks(mut self, method: &'static str) -> Self {
        let body = Body::Whole(format!("body of step {}", self.steps.len() + 1));
        let reply = Reply { status: 200, fields: String::new(), body, interim: "" };
        self.steps.push(Step { method, path: "", sends: String::new(), reply, expects: Vec::new() });
        self
    }

    /// Beside the path of the case.
    pub(super) fn at(self, path: &'static str) -> Self {
        self.step(|step| step.path = path)
    }

    /// The client sends these fields.
    pub(super) fn with(self, fields: impl Into<String>) -> Self {
        self.step(|step| step.sends = fields.into())
    }

    /// The backend answers 200 with these fields.
    pub(super) fn answered(self, fields: impl Into<String>) -> Self {
        self.step(|step| step.reply.fields = fields.into())
    }

    /// The same with another status.
    pub(super) fn answered_by(self, status: u16, fields: impl Into<String>) -> Self {
        self.answered(fields).step(|step| step.reply.status = status)
    }

    pub(super) fn body(self, body: Body) -> Self {
        self.step(|step| step.reply.body = body)
    }

    pub(super) fn text(self, text: &str) -> Self {
        self.body(Body::Whole(text.to_owned()))
    }

    pub(super) fn interim(self, interim: &'static str) -> Self {
        self.step(|step| step.reply.interim = interim)
    }

    pub(super) fn hit(self) -> Self {
        self.expect(Expect::Hit)
    }

    pub(super) fn asked(self) -> Self {
        self.expect(Expect::Asked)
    }

    pub(super) fn behind(self) -> Self {
        self.expect(Expect::Behind)
    }

    pub(super) fn status(self, status: u16) -> Self {
        self.expect(Expect::Status(status))
    }

    pub(super) fn has(self, line: impl Into<String>) -> Self {
        self.expect(Expect::Has(line.into()))
    }

    pub(super) fn lacks(self, name: &'static str) -> Self {
        self.expect(Expect::Lacks(name))
    }

    pub(super) fn says(self, body: impl Into<String>) -> Self {
        self.expect(Expect::Body(body.into()))
    }

    /// The client gets the body of this step's answer, counted from one.
    pub(super) fn says_step(self, step: usize) -> Self {
        self.says(format!("body of step {step}"))
    }

    pub(super) fn sent(self, line: impl Into<String>) -> Self {
        self.expect(Expect::Sent(line.into()))
    }

    pub(super) fn not_sent(self, name: &'static str) -> Self {
        self.expect(Expect::NotSent(name))
    }

    pub(super) fn aged(self, from: u64, to: u64) -> Self {
        self.expect(Expect::Age(from, to))
    }

    pub(super) fn saw(self, interim: u16) -> Self {
        self.expect(Expect::Interim(interim))
    }

    fn expect(self, expect: Expect) -> Self {
        self.step(|step| step.expects.push(expect))
    }

    fn step(mut self, change: impl FnOnce(&mut Step)) -> Self {
        change(self.steps.last_mut().expect("a step comes first"));
        self
    }
}

/// A response with these fields answers a second, equal request.
pub(super) fn reused(section: &'static str, claim: impl Into<String>, fields: &str) -> Case {
    case(section, claim).get().answered(fields).get().hit()
}

/// It does not.
pub(super) fn not_reused(section: &'static str, claim: impl Into<String>, fields: &str) -> Case {
    case(section, claim).get().answered(fields).get().asked()
}
