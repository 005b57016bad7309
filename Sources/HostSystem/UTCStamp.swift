/// A date and time in UTC, by the proleptic Gregorian calendar and without a calendar library. Years are counted from 1 March
/// inside, so that the leap day is the last of its year; eras of 400 years all have the same number of days.
public struct UTCStamp: Sendable, Equatable {
    public let year: Int64, month: Int64, day: Int64, hour: Int64, minute: Int64, second: Int64

    private static let daysOfEra: Int64 = 146_097
    /// From 1 March of the year 0 to 1 January 1970.
    private static let daysTo1970: Int64 = 719_468

    public init(secondsSince1970 seconds: Int64) {
        let days = Int64((Double(seconds) / 86400).rounded(.down))
        let rest = seconds - days * 86400
        hour = rest / 3600
        minute = rest % 3600 / 60
        second = rest % 60
        let shifted = days + Self.daysTo1970
        let era = (shifted >= 0 ? shifted : shifted - Self.daysOfEra + 1) / Self.daysOfEra
        let dayOfEra = shifted - era * Self.daysOfEra
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / (Self.daysOfEra - 1)) / 365
        let dayOfYear = dayOfEra - Self.days(beforeYearOfEra: yearOfEra)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        day = dayOfYear - Self.days(beforeShiftedMonth: shiftedMonth) + 1
        month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    }

    /// Seconds since 1970 of a date; nil where there is no such date or time, or it lies before 1970. Second 60 of a leap
    /// second counts as the next minute's first.
    public static func seconds(
        year: Int, month: Int, day: Int, hour: Int = 0, minute: Int = 0, second: Int = 0
    ) -> Int64? {
        guard (1970...9999).contains(year), (1...12).contains(month), (0..<24).contains(hour),
            (0..<60).contains(minute), (0...60).contains(second), day >= 1, day <= daysIn(month: month, year: year)
        else { return nil }
        let shifted = Int64(month > 2 ? year : year - 1)
        let era = shifted / 400
        let days =
            era * daysOfEra + Self.days(beforeYearOfEra: shifted % 400)
            + Self.days(beforeShiftedMonth: Int64(month + (month > 2 ? -3 : 9))) + Int64(day) - 1 - daysTo1970
        return days * 86400 + Int64(hour * 3600 + minute * 60 + second)
    }

    private static func days(beforeYearOfEra year: Int64) -> Int64 { 365 * year + year / 4 - year / 100 }

    /// March is 0. Five months have 153 days, whichever follow each other.
    private static func days(beforeShiftedMonth month: Int64) -> Int64 { (153 * month + 2) / 5 }

    private static func daysIn(month: Int, year: Int) -> Int {
        switch month {
        case 2: year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28
        case 4, 6, 9, 11: 30
        default: 31
        }
    }

    /// `20261124143501`
    public var digits: String { dateDigits + timeDigits }
    /// `20261124T143501Z`, the basic form of ISO 8601.
    public var basic: String { dateDigits + "T" + timeDigits + "Z" }
    /// `20261124`
    public var dateDigits: String { padded(year, 4) + padded(month) + padded(day) }
    private var timeDigits: String { padded(hour) + padded(minute) + padded(second) }

    /// `2026-11-24T14:35:01Z`, RFC 3339.
    public var text: String {
        "\(padded(year, 4))-\(padded(month))-\(padded(day))T\(padded(hour)):\(padded(minute)):\(padded(second))Z"
    }

    private func padded(_ value: Int64, _ width: Int = 2) -> String {
        let digits = String(value)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
}
