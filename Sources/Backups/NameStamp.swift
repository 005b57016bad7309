internal import HostSystem

/// A UTC date, with or without a time, in a file name: `20261124T030000Z`, `20261124-030000`, `20261124030000`,
/// `202611240300`, `2026-11-24T03-00-00`, `2026-11-24_0300`, `2026-11-24`. Of several the last counts: what stands before it is
/// more likely a version. Digits that no date fits (a build number, seconds since 1970) are no stamp.
struct NameStamp: Equatable {
    let seconds: Int64
    let hasTime: Bool

    init?(in name: String) {
        let text = Array(name.utf8)
        var found: NameStamp?
        var position = 0
        while position < text.count {
            // A stamp begins where a run of digits does.
            if Self.isDigit(text, position) && !Self.isDigit(text, position - 1),
                let (stamp, end) = Self.parse(text, from: position)
            {
                found = stamp
                position = end
            } else {
                position += 1
            }
        }
        guard let found else { return nil }
        self = found
    }

    private init(seconds: Int64, hasTime: Bool) {
        self.seconds = seconds
        self.hasTime = hasTime
    }

    private static func parse(_ text: [UInt8], from start: Int) -> (NameStamp, end: Int)? {
        var reader = Reader(text: text, position: start)
        guard let year = reader.number(4) else { return nil }
        let isSpaced = reader.skip("-_.")
        guard let month = reader.number(2), reader.skip("-_.") == isSpaced, let day = reader.number(2),
            (2000..<2100).contains(year), let date = UTCStamp.seconds(year: year, month: month, day: day)
        else { return nil }
        let dateEnd = reader.position
        let isAttached = isDigit(text, dateEnd)
        let dateOnly = isAttached ? nil : (NameStamp(seconds: date, hasTime: false), dateEnd)
        if !isAttached && !reader.skip("Tt-_.") { return dateOnly }
        guard let hour = reader.number(2) else { return dateOnly }
        let isTimeSpaced = reader.skip("-_:.")
        guard let minute = reader.number(2) else { return dateOnly }
        var second = 0
        let minuteEnd = reader.position
        if reader.skip("-_:.") == isTimeSpaced, let number = reader.number(2) {
            second = number
        } else {
            reader.position = minuteEnd
        }
        guard !isDigit(text, reader.position),
            let time = UTCStamp.seconds(year: year, month: month, day: day, hour: hour, minute: minute, second: second)
        else { return dateOnly }
        return (NameStamp(seconds: time, hasTime: true), reader.position)
    }

    private static func isDigit(_ text: [UInt8], _ position: Int) -> Bool {
        text.indices.contains(position) && (0x30...0x39).contains(text[position])
    }

    private struct Reader {
        let text: [UInt8]
        var position: Int

        mutating func number(_ digits: Int) -> Int? {
            guard (position..<position + digits).allSatisfy({ NameStamp.isDigit(text, $0) }) else { return nil }
            defer { position += digits }
            return text[position..<position + digits].reduce(0) { $0 * 10 + Int($1 - 0x30) }
        }

        mutating func skip(_ any: String) -> Bool {
            guard text.indices.contains(position), any.utf8.contains(text[position]) else { return false }
            position += 1
            return true
        }
    }
}
