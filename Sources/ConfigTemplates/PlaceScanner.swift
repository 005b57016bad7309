/// Reads a rendered file as its target language would, byte by byte, and so knows what kind of place it has come to. Only the
/// author's text is read; values are quoted so that they do not change the place.
protocol PlaceScanner {
    /// The next byte of the author's text. Returns what is wrong there, if anything.
    mutating func read(_ byte: UInt8) -> String?

    /// The bytes that stand for `value` in this place. The refusal's reason continues a sentence that begins with the value's
    /// name, and says nothing of its content.
    mutating func quote(_ value: Scalar, before following: Following) throws(Refusal) -> [UInt8]

    /// What is wrong when the text ends here.
    func ending() -> String?
}

extension PlaceScanner {
    func ending() -> String? { nil }
}

/// A value that can stand in a text.
enum Scalar {
    case null
    case boolean(Bool)
    /// Without NUL bytes: no target language can hold one.
    case text([UInt8])

    /// The bytes, with the language's words for booleans. Null has none anywhere but where the caller knows a word for it.
    func bytes(_ yes: String = "true", _ no: String = "false") throws(Refusal) -> [UInt8] {
        switch self {
        case .null: throw Refusal("is null: put the tag into a section, {{#name}}…{{/name}}, or give it a value")
        case .boolean(let value): Array((value ? yes : no).utf8)
        case .text(let bytes): bytes
        }
    }
}

struct Refusal: Error {
    let reason: String
    init(_ reason: String) { self.reason = reason }

    /// The author's place takes no value at all.
    static func place(_ what: String, _ instead: String = "") -> Refusal {
        Refusal("stands in \(what), where no value can be quoted" + (instead.isEmpty ? "" : "; " + instead))
    }
}

/// The author's text right behind a tag, as far as it is known.
enum Following {
    /// The template ends.
    case end
    /// Not empty.
    case text(ArraySlice<UInt8>)
    /// Another tag.
    case tag

    var first: UInt8? {
        if case .text(let bytes) = self { bytes.first } else { nil }
    }

    var isTag: Bool {
        if case .tag = self { true } else { false }
    }

    /// Whether nothing but blanks stands between the tag and the end of the line, or a byte that ends the value as well.
    func endsLine(orAt isEnd: (UInt8) -> Bool = { _ in false }) -> Bool {
        switch self {
        case .end: return true
        case .tag: return false
        case .text(let bytes):
            guard let next = bytes.first(where: { !$0.isBlank && $0 != .carriageReturn }) else { return false }
            return next == .newline || isEnd(next)
        }
    }
}

/// Values in comments: anything that cannot end the comment. Kept narrow, since a comment is read by people only.
enum CommentText {
    static func quote(_ value: Scalar, refusing marks: StaticString = "") throws(Refusal) -> [UInt8] {
        let bytes = try value.bytes()
        guard !bytes.contains(where: \.isControl) else { throw Refusal("has a control character, and stands in a comment") }
        let refused = "\(marks)".utf8
        guard !bytes.contains(where: { refused.contains($0) }) else {
            throw Refusal("has one of the characters \(marks), and stands in a comment, which they could end")
        }
        return bytes
    }
}

extension TargetLanguage {
    func scanner() -> any PlaceScanner {
        switch self {
        case .apache: ApacheScanner()
        case .php: PHPScanner()
        case .ini: IniScanner(isPool: false)
        case .fpm: IniScanner(isPool: true)
        case .shell: ShellScanner()
        case .dotenv: DotenvScanner()
        case .mysql: MySQLScanner()
        case .rsyslog: RsyslogScanner()
        case .html: HTMLScanner()
        case .json: JSONScanner()
        case .plain: PlainScanner()
        }
    }
}
